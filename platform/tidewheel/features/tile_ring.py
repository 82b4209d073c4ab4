"""Events of a micro-batch into the tiles of many entities at once. NumPy only.

Only tiles that an event falls into are taken apart; the others are copied as they are. Events are added one by one
in their order of arrival, so a tile has the same bits however they were cut into batches.
"""

from __future__ import annotations

import numpy as np

from tidewheel.features.record_events import TIME, RecordEvents, Records
from tidewheel.features.spans import Ints
from tidewheel.features.tiles import INDEX_BITS, TileLayout, Tiles


def merged_tiles(
    layout: TileLayout,
    integers: tuple[bool, ...],
    tiles: Tiles,
    counts: Ints,
    events: Records,
    codes: Ints,
    asked_us: Ints,
) -> tuple[Tiles, Ints]:
    """Tiles by entity and number, and how many each entity has, after ``events`` (in order of arrival, entity
    ``codes``) came in; those that no request at ``asked_us`` (per entity) or later can read are gone."""
    n_entities, levels = len(counts), len(layout.levels)
    starts = layout.starts(asked_us)
    owners = np.repeat(np.arange(n_entities) << 32, counts)
    places = owners + layout.tile_numbers(tiles)
    touched, tile_of = _touched(layout, events[:, TIME], codes)
    where = np.searchsorted(places, touched)
    known = np.zeros(len(touched), dtype=bool)
    inside = where < len(places)
    known[inside] = places[where[inside]] == touched[inside]
    changed = layout.empty(len(touched))
    changed[known] = tiles[where[known]]
    partials = [layout.fields(changed, number) for number in range(len(layout.parts))]
    sources = RecordEvents(events, integers)
    for bound, stored in zip(layout.parts, partials, strict=True):
        arrays, member = sources.bound(bound)
        for level in range(levels):
            bound.part.fold(stored, tile_of[level], arrays, member)
    layout.packed(changed, touched & (2**32 - 1), partials)
    lives = _lives(places, starts)
    stays = _lives(touched, starts)
    lives[where[known]] = False
    if lives.all() and not known.any() and not len(touched):
        return tiles, counts
    kept, changed, touched = tiles[lives], changed[stays], touched[stays]
    owners = owners[lives]
    at = np.searchsorted(places[lives], touched)
    made = np.empty((len(kept) + len(changed), layout.width), dtype=np.int64)
    new = np.zeros(len(made), dtype=bool)
    new[at + np.arange(len(at))] = True
    made[new] = changed
    made[~new] = kept
    return made, np.bincount(owners >> 32, minlength=n_entities) + np.bincount(touched >> 32, minlength=n_entities)


def _lives(places: Ints, starts: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which tiles (entity << 32 | number) are not before the first that may still be read."""
    numbers = places & (2**32 - 1)
    return np.asarray(numbers >= starts[places >> 32, numbers >> INDEX_BITS])


def _touched(layout: TileLayout, times_us: Ints, codes: Ints) -> tuple[Ints, list[Ints]]:
    """Different tiles (entity << 32 | number), in order, and per level which of them each event falls into."""
    order = np.lexsort((times_us, codes))
    places, firsts = [], []
    for level in range(len(layout.levels)):
        place = (codes[order] << 32) + layout.numbers(level, times_us[order])
        first = np.ones(len(place), dtype=bool)
        first[1:] = place[1:] != place[:-1]
        places.append(place[first])
        firsts.append(np.cumsum(first) - 1)
    together = np.concatenate(places)
    ranks = np.argsort(together, kind="stable")
    rank_of = np.empty_like(ranks)
    rank_of[ranks] = np.arange(len(ranks))
    tile_of, before = [], 0
    for place, first in zip(places, firsts, strict=True):
        mine = np.empty(len(times_us), dtype=np.int64)
        mine[order] = rank_of[before + first]
        tile_of.append(mine)
        before += len(place)
    return together[ranks], tile_of
