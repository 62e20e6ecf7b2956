"""Figures and tables of the papers that need networks: what they show and what they cost. Drawn by nqm.validation."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NETWORK_FIGURES", "Listing"]


@dataclass(frozen=True)
class Listing:
    """title: what it shows. quick, full: minutes of training on one core, with ``--quick`` and without; figures of a
    paper share runs."""

    title: str
    quick: float
    full: float


WEN2020 = {
    "wen2020-2": Listing("Gradient variance by layer under each regime", 0.4, 7.0),
    "wen2020-3": Listing("Training error and loss per update under each regime", 0.6, 46.0),
    "wen2020-5a": Listing("Norms of the Fisher matrix and of its diagonal along training", 0.6, 5.9),
    "wen2020-5b": Listing("The Hessian's largest eigenvalue at the end of training", 0.2, 6.9),
    "wen2020-table2": Listing("Held-out accuracy at equal epochs under each regime", 0.4, 13.0),
    "wen2020-costs": Listing("What a step of each regime costs", 0.2, 0.99),
}

JASTRZEBSKI2021 = {
    "jastrzebski2021-1": Listing(
        "Accuracy, Tr(F) and gradient norm at the best learning rate and at a tenth of it", 0.8, 2.5
    ),
    "jastrzebski2021-2": Listing("Early Tr(F) and generalization: learning rates", 1.1, 7.8),
    "jastrzebski2021-3": Listing("Validation accuracy and Tr(F) along training under penalties, CNN", 1.5, 15.0),
    "jastrzebski2021-4": Listing("Fisher penalty from a later epoch on", 1.5, 13.0),
    "jastrzebski2021-5": Listing("Noisy labels under the Fisher penalty: accuracy and gradient norms, MLP", 0.074, 1.3),
    "jastrzebski2021-6": Listing("Early Tr(F) and final Tr(H): learning rates", 0.3, 2.5),
    "jastrzebski2021-7": Listing("Early Tr(F) and generalization: batch sizes", 0.55, 4.1),
    "jastrzebski2021-8": Listing("Validation accuracy and Tr(F) along training under penalties, MLP", 0.17, 2.8),
    "jastrzebski2021-9": Listing("Noisy labels under the Fisher penalty: accuracy and gradient norms, CNN", 0.042, 3.6),
    "jastrzebski2021-10": Listing("Early Tr(F) and final Tr(H): batch sizes", 0.17, 7.6),
    "jastrzebski2021-11": Listing("Tr(H) along training, coarse and fine sets of settings", 0.15, 8.7),
    "jastrzebski2021-12": Listing("Tr(F) and Tr(F^B) of single batches along training", 0.73, 4.7),
    "jastrzebski2021-13": Listing("Fisher penalty with its gradient every tenth step against every step", 1.3, 13.0),
    "jastrzebski2021-14": Listing("Fisher penalty of one example (eq. 6) against that of a batch", 1.3, 14.0),
    "jastrzebski2021-15": Listing("Tr(F) at each step, two learning rates", 0.96, 5.8),
    "jastrzebski2021-16": Listing("Tr(F) at each step, three batch sizes", 0.24, 5.7),
    "jastrzebski2021-17": Listing("Fisher penalty in large batches", 0.51, 12.0),
    "jastrzebski2021-18": Listing("Tr(H) and Tr(F) along training", 0.11, 3.7),
    "jastrzebski2021-table1": Listing(
        "Test accuracy under each penalty at a tenth of the best learning rate", 2.1, 39.0
    ),
    "jastrzebski2021-table2": Listing("Fisher penalty at the best learning rate", 0.11, 10.0),
    "jastrzebski2021-table3": Listing("Test accuracy with noisy labels under each method", 0.14, 13.0),
    "jastrzebski2021-table4": Listing("Largest Tr(F) under each penalty", 2.1, 39.0),
    "jastrzebski2021-table5": Listing("Cost of an epoch under each penalty", 0.11, 0.76),
    "jastrzebski2021-table6": Listing("Training accuracy under each penalty", 2.1, 39.0),
}

NETWORK_FIGURES: dict[str, Listing] = {**WEN2020, **JASTRZEBSKI2021}
"""By name, as typed in the shell: paper and number."""
