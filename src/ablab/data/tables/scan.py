"""A part of a file counted: by columns where they certainly hold what the rows do, else row by row."""

from __future__ import annotations

from typing import Any

import numpy as np

from ablab.data.tables.blocks import Block, Parser, blocks_of
from ablab.data.tables.parts import Part, batches_of, rows_of, rows_of_lines
from ablab.data.tables.roles import Roles
from ablab.data.tables.tally import Tally, tally_rows


def tally_part(part: Part, roles: Roles) -> Tally:
    """Return the tally of a part of a file.

    Raises:
        DataError: as `rows_of`.
    """
    tally = Tally(roles=roles)
    if part.parquet:
        for batch in batches_of(part):
            if not add_batch(tally, batch):
                # Reading its rows says what is wrong.
                return tally_rows(rows_of(part), roles)
        return tally
    parser = Parser(exact=told_apart(roles))
    for block in blocks_of(part):
        if not add_block(tally, parser, block):
            tally.merge(tally_rows(rows_of_lines(part, block.lines, number=block.number), roles))
    return tally


def told_apart(roles: Roles) -> frozenset[str]:
    """Return the fields whose values are told apart as they are written."""
    return frozenset((*roles.of_queries, *filter(None, [roles.passage_ids])))


def add_block(tally: Tally, parser: Parser, block: Block) -> bool:
    """Count a block by columns; False where its rows have to be read one by one, and then nothing is counted."""
    from ablab.data.tables.columns import add_table

    parsed = parser.parse(block)
    if parsed is None:
        return False
    tally.rows += len(parsed.lines)
    tally.size += sum(map(len, parsed.lines))
    tally.hashes["rows"].extend(map(hash, parsed.lines))
    add_table(tally, parsed.table, rows=len(parsed.lines), absent=parsed.absent)
    return True


def add_batch(tally: Tally, batch: Any) -> bool:
    """Count a batch of parquet by columns; False where its texts are not UTF-8, or names come twice."""
    import pyarrow as pa

    from ablab.data.tables.columns import add_table
    from ablab.data.tables.identity import row_hashes

    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        return False
    if len(set(batch.schema.names)) != batch.num_columns:
        return False
    tally.rows += batch.num_rows
    tally.hashes["rows"].frombytes(row_hashes(batch).view(np.int64).tobytes())
    add_table(tally, batch, rows=batch.num_rows, absent={})
    return True
