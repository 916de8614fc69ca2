"""Search over the vectors of a pool: exact, 8-bit, and residual-coded, from files that are streamed.

A score is MaxSim: the sum over query vectors of the largest product with a vector of the passage; with one vector
each it is their product. `files` writes and opens an index, `engine` searches any of them, one shard at a time;
`shards` says what each kind stores and how it scores; `codes` holds the codecs, `best` the running top k, `compress`
makes the smaller kinds out of the exact one and states what they lose.
"""

from ablab.models.search.best import NOTHING, Found
from ablab.models.search.compress import compress
from ablab.models.search.engine import search
from ablab.models.search.files import Index, IndexWriter, open_index
from ablab.models.search.loss import Loss, state_loss

__all__ = ["NOTHING", "Found", "Index", "IndexWriter", "Loss", "compress", "open_index", "search", "state_loss"]
