"""Time of our confident learning against cleanlab's on the same voxels of a two-class patch, CPU against CPU.

python scripts/benchmark_confident.py [--voxels 2000000] [--classes 2] [--repeat 3] [--cuda]
"""

import argparse
import time

import numpy as np
import torch

from nnunet_gmabs.learning.confident import find_label_issues


def example(voxels: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) float64 probabilities and (N,) labels: background 85 %, one label in twenty wrong, a fair model."""
    rng = np.random.default_rng(seed)
    prior = np.array([0.85] + [0.15 / (classes - 1)] * (classes - 1))
    truth = rng.choice(classes, voxels, p=prior)
    logits = rng.normal(size=(voxels, classes))
    logits[np.arange(voxels), truth] += 3
    probs = np.exp(logits)
    labels = np.where(rng.random(voxels) < 0.05, rng.integers(0, classes, voxels), truth)
    return probs / probs.sum(1, keepdims=True), labels


def seconds(run, repeat: int) -> float:
    """The fastest of several runs."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxels", type=int, default=2_000_000)
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cuda", action="store_true", help="our side also on the GPU, float32")
    args = parser.parse_args()
    probs, labels = example(args.voxels, args.classes)
    print(f"{args.voxels:,} voxels, {args.classes} classes, {torch.get_num_threads()} threads")
    tensors = torch.from_numpy(probs), torch.from_numpy(labels)
    ours = seconds(lambda: find_label_issues(*tensors), args.repeat)
    print(f"ours      {ours:.3f} s")
    if args.cuda:
        on_gpu = tensors[0].float().cuda(), tensors[1].cuda()

        def run():
            find_label_issues(*on_gpu)
            torch.cuda.synchronize()

        run()
        print(f"ours, GPU {1e3 * seconds(run, args.repeat) / args.voxels * 1e6:.2f} ms per million voxels")
    try:
        from cleanlab.filter import find_label_issues as reference
    except ImportError:
        print("cleanlab is not installed (pip install cleanlab): no comparison")
        return
    theirs = seconds(lambda: reference(labels, probs, filter_by="both"), args.repeat)
    same = (find_label_issues(*tensors).numpy() == reference(labels, probs, filter_by="both")).mean()
    print(f"cleanlab  {theirs:.3f} s")
    print(f"ratio     {theirs / ours:.1f}, same answer for {100 * same:.4f} % of voxels")


if __name__ == "__main__":
    main()
