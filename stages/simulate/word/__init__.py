"""The word simulator; `word_simulator` says what it reads."""
