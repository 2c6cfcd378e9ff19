"""Listings as long as somebody wants them, made of the store's pages. What a page promises stands in `ports`."""

from dataclasses import replace

from pipeline.domain.incidents import Incident
from pipeline.services.ports import IncidentStore, Listing


async def list_incidents(store: IncidentStore, listing: Listing) -> tuple[Incident, ...]:
    """Return the newest incidents that match: `listing.limit` of them, or all there are."""
    found: list[Incident] = []
    going_on = listing
    while True:
        page = await store.page(going_on)
        found += page.incidents
        if page.next is None or len(found) == listing.limit:
            return tuple(found)
        going_on = replace(listing, limit=listing.limit - len(found), before=page.next)
