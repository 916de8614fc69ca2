"""The peer of retrieval_search.py: pylate's PLAID over the vectors of a folder, run by a Python that has pylate.

python plaid_peer.py FOLDER K THREADS
"""

from __future__ import annotations

import json
import sys
import time

import torch
from safetensors.torch import load_file


def main() -> None:
    folder, k = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(int(sys.argv[3]))
    queries = list(load_file(f"{folder}/queries.safetensors")["queries"].numpy())
    passages = load_file(f"{folder}/passages.safetensors")["passages"].float().numpy()
    from pylate import indexes, retrieve

    began = time.perf_counter()
    index = indexes.PLAID(index_folder=f"{folder}/peer", index_name="peer", override=True, nbits=4)
    index.add_documents(documents_ids=[str(i) for i in range(len(passages))], documents_embeddings=list(passages))
    built = time.perf_counter() - began
    retriever = retrieve.ColBERT(index=index)
    retriever.retrieve(queries_embeddings=queries[:1], k=k)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        found = retriever.retrieve(queries_embeddings=queries, k=k)
        times.append(time.perf_counter() - began)
    ids = [[int(each["id"]) for each in row] for row in found]
    print("ANSWER " + json.dumps({"build": built, "seconds": sorted(times)[1], "ids": ids}))


if __name__ == "__main__":
    main()
