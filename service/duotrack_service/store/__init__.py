"""Where sessions are kept so that they survive their process: SQLite, Redis, or nowhere."""

from duotrack_service.store.base import Claim, LeaseLost, Store, StoreError
from duotrack_service.store.opening import open_store

__all__ = ["Claim", "LeaseLost", "Store", "StoreError", "open_store"]
