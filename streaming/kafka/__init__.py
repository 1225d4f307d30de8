"""Kafka as the stages use it: clients, transactions, changelogs, offsets."""
