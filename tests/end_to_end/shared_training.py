"""One training by several processes: what each of them calls."""

from unittest import mock

import torch

GMABS, CMEMS, BOTH = "nnUNetTrainerGMABS", "nnUNetTrainerCMEMS", "nnUNetTrainerGMABSMutual"
ROUNDS = {"relabel": {"first": 0.25, "first_iterations": 0, "every": 0.25, "until": 0.8}}
SURE = {"mutual": {"ramp_start": 0.0, "confidence": 0.0, "confidence_start": 0.0}}


def trained(training, batches=None, stop=None, **options):
    """Train in this process, one of several or the only one; the trainer's log and weights, None when stopped.

    Args:
        training: which.
        batches: file with whole batches for training and validation, shared out instead of drawn.
        stop: iteration before which all processes end, as if killed.
        options: of Training.here.
    """
    from nnunet_gmabs.trainers import loaders
    from nnunet_gmabs.trainers.base import nnUNetTrainerSparse

    torch.set_num_threads(1)
    seen, step, build = [], nnUNetTrainerSparse.train_step, loaders.build

    def watched(trainer, batch):
        if trainer.iteration == stop:
            raise KeyboardInterrupt
        seen[:] = [trainer]
        return step(trainer, batch)

    def fixed(trainer):
        kinds = torch.load(batches, weights_only=False)
        return tuple(iter([part_of(batch, trainer.ranks.part) for batch in kind]) for kind in kinds)

    with (
        mock.patch.object(nnUNetTrainerSparse, "train_step", watched),
        mock.patch.object(loaders, "build", build if batches is None else fixed),
    ):
        try:
            training.here(**options)
        except KeyboardInterrupt:
            return None
    [trainer] = seen
    return {
        "history": trainer.history,
        "train_losses": [float(loss) for loss in trainer.logger.get_value("train_losses", None)],
        "samples": trainer.batch_size,
        "weights": {name: [p.detach().numpy() for p in n.parameters()] for name, n in trainer.networks().items()},
    }


def part_of(batch, part):
    """Some samples of a batch."""
    several = {name for name, value in batch.items() if name == "target" and isinstance(value, list)}
    return {name: [v[part] for v in value] if name in several else value[part] for name, value in batch.items()}
