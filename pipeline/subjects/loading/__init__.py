"""From the name of a model to the model: its files, on the hub, in a folder, a package or a GGUF file, and its tokenizer."""
