"""From the changelogs to Feast's online store."""
