"""The one reader of logs and catalogues: whatever a card describes becomes rows of one form, and nothing is lost
without a word."""
