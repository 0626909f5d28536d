"""English as the methods know it that ask no language model: words, their classes and forms, a thesaurus."""
