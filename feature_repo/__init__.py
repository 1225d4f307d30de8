"""What is known of every query and item: the click, the dataset card, and the Feast definitions."""
