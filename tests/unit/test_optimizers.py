"""Optimizers take their steps without torch's compiler, to the same weights."""

import subprocess
import sys

SCRIPT = """
import sys
import torch
from handsell.retrieval.neural.optimizers import COMPILER, leave_out_compiler

def fit():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(50, 8), torch.nn.Linear(8, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.arange(50)).square().sum().backward()
        optimizer.step()
    return [weights.detach().clone() for weights in model.parameters()]

with leave_out_compiler():
    without = fit()
print(COMPILER in sys.modules)
with_it = fit()
print(COMPILER in sys.modules, all(map(torch.equal, without, with_it)))
with leave_out_compiler():
    fit()
print(torch._dynamo is sys.modules[COMPILER], callable(torch._dynamo.optimize))
"""


def test_the_compiler_is_left_out_only_within_the_block_and_weights_are_the_same():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.split() == ["False", "True", "True", "True", "True"], done.stderr
