"""What the tokenizer is trained for: alignment (Eq. 1-3), perception, the adversary, and their sum (Eq. 4)."""
