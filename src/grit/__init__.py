"""gritbench: adversarial robustness, size and ARM cost of compact text classifiers."""

__version__ = "0.1.0"
