"""A small multimodal retrieval set of M2KR's schema, generated from the bundled emoji and dictionary.

A query is an instruction, a question and the drawing of one vendor; its positives are passages of a dictionary gloss,
keywords or Korean names with the drawing of the other vendor. `subsets` makes queries and passages of four shapes,
`files` writes both of M2KR's file formats.
"""

from ablab.data.mini_m2kr.files import write_mini_m2kr
from ablab.data.mini_m2kr.subsets import SHAPES, Passage, Query, Shape, Subset, generate, parts_of

__all__ = [
    "SHAPES",
    "Passage",
    "Query",
    "Shape",
    "Subset",
    "generate",
    "parts_of",
    "write_mini_m2kr",
]
