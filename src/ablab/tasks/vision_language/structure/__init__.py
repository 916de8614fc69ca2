"""What a vision-language model is made of, as far as a study tells before anything is loaded."""
