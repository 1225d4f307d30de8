"""The live Faiss index."""
