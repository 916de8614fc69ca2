"""What millions of rows of JSONL or parquet hold: counts over every row, and subsets, in bounded memory.

Files are cut into parts that processes read side by side (`parts`); a `Tally` of each part is added up (`tally`) and
becomes a description (`describe`), two descriptions a comparison (`compare`). `choose` filters and balances rows. They
are looked at by column (`columns`) where pyarrow certainly reads them as they stand (`blocks`), one by one elsewhere.
Fields are those of M2KR's two forms unless told otherwise (`roles`); other rows are counted by field all the same.
"""
