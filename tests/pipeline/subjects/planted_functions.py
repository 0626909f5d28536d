"""Functions of texts, good ones and bad ones, as the text of a module that a test writes into its working directory."""

FUNCTIONS = '''
import numpy as np
import torch

asked = []
shown = 0

def length(texts):
    asked.append(list(texts))
    return [len(text) for text in texts]

def pair(texts):
    asked.append(list(texts))
    return np.array([[len(text), text.count("a")] for text in texts])

def tensor(texts):
    return torch.tensor([[len(text)] for text in texts], dtype=torch.bfloat16, requires_grad=True)

def flags(texts):
    return [" " in text for text in texts]

def odd(texts):
    return [float("nan") if "x" in text else float("inf") if "y" in text else 1e300 if "z" in text else 1 for text in texts]

def raises(texts):
    return [1 / 0 for text in texts]

def leaves(texts):
    raise SystemExit(3)

def short(texts):
    return [0.0] * (len(texts) - 1)

def one(texts):
    return 3.0

def nothing(texts):
    return None

def wide(texts):
    return np.zeros((len(texts), 3))

def deep(texts):
    return np.zeros((len(texts), 1, 1))

def words(texts):
    return list(texts)

def digits(texts):
    return ["1.5" for text in texts]

def ragged(texts):
    return [[0.0] * (place + 1) for place in range(len(texts))]

def complex_numbers(texts):
    return np.zeros(len(texts), complex)

def random(texts):
    return np.random.default_rng().random(len(texts))

def counter(texts):
    return list(range(len(texts)))

def wide_product(texts):
    """1,000 units in float32, whose last bits depend on the texts beside."""
    draws = [np.random.default_rng(list(text.encode())).standard_normal(64) for text in texts]
    weights = np.random.default_rng(0).standard_normal((1000, 64))
    return np.asarray(draws, np.float32) @ weights.T.astype(np.float32)

def drifts(texts):
    """A unit that is large and right, and one that is small and another each time."""
    return [[1e6 * len(text), 1e-6 * np.random.default_rng().random()] for text in texts]

def eight(texts):
    if len(texts) > 8:
        raise MemoryError("too many texts")
    return length(texts)

def late(texts):
    """Deterministic on texts of letters alone."""
    return [float("b" in text and np.random.default_rng().random()) for text in texts]

no_function = 3

def sleeps(texts):
    import time
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            pass

def sleeps_once(texts):
    if "late" in texts:
        asked.append(list(texts))
        sleeps(texts)
    return [0.0] * len(texts)

def factory(power, shift=0):
    if power > 9:
        raise OverflowError("too high")
    return (lambda texts: [len(text) ** power + shift for text in texts]) if power else None
'''
