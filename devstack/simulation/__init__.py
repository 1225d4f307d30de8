"""Histories of workers on a simulated broker: every order of crashes, pauses and late requests, by seed."""
