"""Language modelling: a GPT trained from scratch on text, with every way to freeze its query and key."""
