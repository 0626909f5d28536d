"""Language models under study or at work: where they come from, how they are loaded, where their units are."""
