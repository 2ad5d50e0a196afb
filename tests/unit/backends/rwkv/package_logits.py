"""Run in a process of its own: the logits of the rwkv package, which decides at import which versions it can run.

``python package_logits.py IDS OUT MODEL…``: for each .pth the logits after all ids, one after the other and in one
call, as one array of shape (models, 2, vocabulary).
"""

import json
import os
import sys
import warnings

import numpy as np


def main(ids: list[int], out: str, models: list[str]) -> None:
    os.environ["RWKV_JIT_ON"] = "0"
    warnings.simplefilter("ignore")
    seventh = "7" in os.path.basename(models[0])
    if seventh:
        os.environ["RWKV_V7_ON"] = "1"
    import rwkv.model

    rows = []
    for path in models:
        name = path.removesuffix(".pth")
        model = rwkv.model.RWKV_x070(name, "cpu fp32") if seventh else rwkv.model.RWKV(path, "cpu fp32", verbose=False)
        state = None
        for token in ids:
            single, state = model.forward([token], state)
        together, _ = model.forward(list(ids), None)
        rows.append([single.numpy(), together.numpy()])
    np.save(out, np.array(rows, np.float32))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:])
