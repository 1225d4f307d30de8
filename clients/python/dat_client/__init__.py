"""Asks a DAT retrieval service for recommendations, and tells it of clicks."""

from dat_client.clients import AsyncClient, Client, RequestRefused
from dat_client.records import Answer, Clicked, Item, ItemInfo

__all__ = ["Answer", "AsyncClient", "Client", "Clicked", "Item", "ItemInfo", "RequestRefused"]
