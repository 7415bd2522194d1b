"""A gallery of awkward models, each held to the promise that a profiled block changes nothing of the caller's.

Add one: a model of yours that fails is welcome here, as small as it still fails. Write one function in the file of its
kind, with a docstring that says what is awkward, and give back an `Exhibit`::

    @shown
    def adds_to_its_argument() -> Exhibit:
        '''Its forward writes into the caller's tensor.'''

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x: Tensor) -> Tensor:
                return x.add_(self.layer(x))

        return Exhibit(Model, calls=(call(lambda: torch.ones(3, 8)),), flops=2 * 3 * 8 * 8)

`build` makes the model, always the same one; `calls` make the arguments of the calls inside the block. A loop that is
more than calls is a `drive(model)`, which runs inside the block; what it returns is compared, so let it return whatever
must not change, the caller's own tensors, too. `flops` is the hand count of all finished calls, in FLOPs, or None with
the reason in `no_count`. `test_harmless.py` then compares outputs, exceptions, the model's state and attributes, and
torch's modes, generators and switches with and without the profiler; `test_counts.py` compares the hand count. What is
known to fail today stands in `known.py`.
"""
