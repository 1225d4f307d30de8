"""The door: what comes in over HTTP, and in which form it is answered."""
