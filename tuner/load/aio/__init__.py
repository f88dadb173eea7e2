"""Drivers on an asyncio loop, over client libraries: gRPC's own, and aiohttp."""
