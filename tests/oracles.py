"""Small bilevel problems in float64 whose hypergradients are known by other means than the code under test."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import grad, jacrev

Params = Mapping[str, Tensor]


class WeightedLogistic:
    """Multinomial logistic regression whose examples are weighted by a small network of their detached losses.

    L_base = mean_i w_i(λ; sg[ℓ_i(θ)]) ℓ_i(θ), L_meta = mean_j ℓ_j(θ) + `direct` · ‖λ‖².
    """

    def __init__(
        self, seed: int, *, features: int = 5, classes: int = 3, examples: int = 20, direct: float = 0.0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
        self.classes, self.direct = classes, direct
        self.theta = {"weight": 0.5 * draw(classes, features), "bias": 0.1 * draw(classes)}
        self.lam = {"slope": draw(4, 1), "shift": draw(4), "out": draw(4)}
        self.batch = (draw(examples, features), torch.randint(0, classes, (examples,), generator=generator))
        self.meta_batch = (draw(examples, features), torch.randint(0, classes, (examples,), generator=generator))

    def buffers(self):
        return []

    def example_losses(self, base: Params, batch) -> tuple[Tensor, Tensor]:
        inputs, labels = batch
        logits = inputs @ base["weight"].T + base["bias"]
        losses = torch.logsumexp(logits, -1) - logits.gather(-1, labels[:, None])[:, 0]
        return losses, losses.detach()[:, None]

    def weights(self, meta: Params, features: Tensor) -> Tensor:
        return torch.sigmoid(torch.tanh(features @ meta["slope"].T + meta["shift"]) @ meta["out"])

    def base_loss(self, base: Params, meta: Params, batch) -> Tensor:
        losses, features = self.example_losses(base, batch)
        return (self.weights(meta, features) * losses).mean()

    def meta_loss(self, base: Params, meta: Params, batch) -> Tensor:
        losses, _ = self.example_losses(base, batch)
        return losses.mean() + self.direct * sum(value.square().sum() for value in meta.values())


class WeightDecay:
    """Linear regression with one weight decay a coefficient, exp(λ): λ enters outside of any example weight."""

    def __init__(self, seed: int, *, features: int = 6, examples: int = 15) -> None:
        generator = torch.Generator().manual_seed(seed)
        draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
        self.theta = {"weight": draw(features)}
        self.lam = {"log_decay": 0.3 * draw(features)}
        truth = draw(features)
        inputs, meta_inputs = draw(examples, features), draw(examples, features)
        self.batch = (inputs, inputs @ truth + 0.3 * draw(examples))
        self.meta_batch = (meta_inputs, meta_inputs @ truth)

    def buffers(self):
        return []

    def base_loss(self, base: Params, meta: Params, batch) -> Tensor:
        inputs, targets = batch
        fit = 0.5 * (inputs @ base["weight"] - targets).square().mean()
        return fit + 0.5 * (meta["log_decay"].exp() * base["weight"].square()).sum()

    def meta_loss(self, base: Params, meta: Params, batch) -> Tensor:
        inputs, targets = batch
        return 0.5 * (inputs @ base["weight"] - targets).square().mean()


def sama_by_autodiff(problem, theta: Params, lam: Params, diagonal: Params) -> dict[str, Tensor]:
    """SAMA's own definition without a difference: `∂L_meta/∂λ − (∂²L_base/∂λ∂θ) v` with `v = D ∂L_meta/∂θ`.

    The mixed derivative is that of the base gradient that a step follows, features and all as autograd sees them.
    """
    base, meta = dict(theta), dict(lam)
    of_base = grad(problem.meta_loss)(base, meta, problem.meta_batch)
    v = {name: diagonal[name] * of_base[name] for name in base}
    direct = grad(problem.meta_loss, argnums=1)(base, meta, problem.meta_batch)
    # [θ name][λ name] -> tensor of θ's shape followed by λ's
    mixed = jacrev(lambda m: grad(problem.base_loss)(base, m, problem.batch))(meta)
    return {
        name: direct[name] - sum(torch.tensordot(v[t], mixed[t][name], dims=v[t].ndim) for t in base) for name in meta
    }


def flat(vector: Params) -> Tensor:
    """All entries in one vector, in the order of the names."""
    return torch.cat([vector[name].reshape(-1) for name in sorted(vector)])


def relative_error(value: Params, truth: Params) -> float:
    """‖value − truth‖ / ‖truth‖ over all names."""
    return ((flat(value) - flat(truth)).norm() / flat(truth).norm()).item()


class LinearModel:
    """Least squares or logistic regression with the meta parameters in a role, solved exactly.

    `L_base = mean_i w_i ℓ(x_i·θ, y_i) + ½ Σ_j d_j (θ_j − c_j)²`, `L_meta = mean_k ℓ(x'_k·θ, y'_k) + ½ direct ‖λ‖²`:

    - role "weights": w = exp(λ), one an example; d = 0.2, c = 0;
    - role "decay": d = exp(λ), one a coefficient; w = 1, c = 0;
    - role "bias": c = λ, d = 0.5, w = 1 (biased regression);
    - role "network": w = 2·sigmoid(features · λ_slope + λ_shift), features given with the batch, and the penalty stands
      inside of each weighted loss, `ℓ + 0.1 ‖θ‖²`. This one is a weighting program.

    θ is held under two names, so that nothing can rely on there being one tensor.
    """

    def __init__(
        self,
        loss: str,
        role: str,
        seed: int,
        *,
        features: int = 6,
        examples: int = 30,
        noise: float = 0.5,
        direct: float = 0.3,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
        self.loss, self.role, self.direct, self.features = loss, role, direct, features
        truth = draw(features) / features**0.5

        def batch(shift: float):
            inputs = draw(examples, features)
            outputs = inputs @ (truth + shift / features**0.5) + noise * draw(examples)
            targets = outputs if loss == "squares" else (outputs > 0).double()
            return inputs, targets, draw(examples, 2)

        self.batch, self.meta_batch = batch(0.0), batch(0.4)
        self.theta = self._named(0.5 * draw(features))
        if role == "network":
            self.lam = {"slope": 0.5 * draw(2), "shift": 0.3 * draw(1)}
        else:
            self.lam = {"values": 0.3 * draw(examples if role == "weights" else features)}
        if role == "network":  # the form that lets a method run its forwards without a graph
            self.example_losses = lambda base, batch: (self._penalized(base, batch), batch[2])
            self.weights = lambda meta, columns: 2 * torch.sigmoid(columns @ meta["slope"] + meta["shift"])

    def _named(self, vector: Tensor) -> dict[str, Tensor]:
        return {"head": vector[:2].clone(), "tail": vector[2:].clone()}

    def buffers(self):
        return []

    def _losses(self, base: Params, batch) -> Tensor:
        inputs, targets, _ = batch
        theta = torch.cat([base["head"], base["tail"]])
        outputs = inputs @ theta
        if self.loss == "squares":
            return 0.5 * (outputs - targets).square()
        return torch.nn.functional.softplus(outputs) - targets * outputs

    def _penalized(self, base: Params, batch) -> Tensor:
        return self._losses(base, batch) + 0.1 * torch.cat([base["head"], base["tail"]]).square().sum()

    def _parts(self, meta: Params, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """w, d and c."""
        ones, zeros = torch.ones(self.features, dtype=torch.float64), torch.zeros(self.features, dtype=torch.float64)
        unweighted = torch.ones(len(columns), dtype=torch.float64)
        if self.role == "weights":
            return meta["values"].exp(), 0.2 * ones, zeros
        if self.role == "decay":
            return unweighted, meta["values"].exp(), zeros
        if self.role == "bias":
            return unweighted, 0.5 * ones, meta["values"]
        weights = 2 * torch.sigmoid(columns @ meta["slope"] + meta["shift"])
        return weights, 0.2 * weights.mean() * ones, zeros

    def base_loss(self, base: Params, meta: Params, batch) -> Tensor:
        w, d, c = self._parts(meta, batch[2])
        theta = torch.cat([base["head"], base["tail"]])
        return (w * self._losses(base, batch)).mean() + 0.5 * (d * (theta - c).square()).sum()

    def meta_loss(self, base: Params, meta: Params, batch) -> Tensor:
        penalty = sum(value.square().sum() for value in meta.values())
        return self._losses(base, batch).mean() + 0.5 * self.direct * penalty

    def _derivatives(self, theta: Tensor, batch) -> tuple[Tensor, Tensor]:
        """ℓ' and ℓ'' with respect to the output, [examples]."""
        outputs = batch[0] @ theta
        if self.loss == "squares":
            return outputs - batch[1], torch.ones_like(outputs)
        chance = torch.sigmoid(outputs)
        return chance - batch[1], chance * (1 - chance)

    def hessian(self, base: Params, meta: Params) -> Tensor:
        """∂²L_base/∂θ² [features, features], written out by hand."""
        w, d, _ = self._parts(meta, self.batch[2])
        _, second = self._derivatives(torch.cat([base["head"], base["tail"]]), self.batch)
        inputs = self.batch[0]
        return inputs.T @ ((w * second)[:, None] * inputs) / len(inputs) + torch.diag(d)

    def solve(self, meta: Params) -> dict[str, Tensor]:
        """argmin_θ L_base by Newton's method, which one step ends for least squares."""
        inputs = self.batch[0]
        w, d, c = self._parts(meta, self.batch[2])
        theta = torch.zeros(self.features, dtype=torch.float64)
        for _ in range(1 if self.loss == "squares" else 12):
            first, _ = self._derivatives(theta, self.batch)
            g = inputs.T @ (w * first) / len(inputs) + d * (theta - c)
            theta = theta - torch.linalg.solve(self.hessian(self._named(theta), meta), g)
        return self._named(theta)

    def mixed(self, base: Params, meta: Params) -> dict[str, Tensor]:
        """∂²L_base/∂θ∂λ by hand, name of λ -> [features, λ]."""
        theta = torch.cat([base["head"], base["tail"]])
        inputs, _, columns = self.batch
        w, d, _ = self._parts(meta, columns)
        first, _ = self._derivatives(theta, self.batch)
        of_weights = inputs.T * first / len(inputs)  # ∂g/∂w, [features, examples]
        if self.role == "network":
            of_weights = of_weights + 0.2 * theta[:, None] / len(inputs)
        if self.role == "weights":
            return {"values": of_weights * w}
        if self.role == "decay":
            return {"values": torch.diag(d * theta)}
        if self.role == "bias":
            return {"values": -torch.diag(d)}
        slope = w * (1 - w / 2)  # derivative of 2·sigmoid
        return {"slope": of_weights @ (slope[:, None] * columns), "shift": of_weights @ slope[:, None]}

    def meta_gradient(self, base: Params) -> Tensor:
        """∂L_meta/∂θ [features] by hand."""
        first, _ = self._derivatives(torch.cat([base["head"], base["tail"]]), self.meta_batch)
        return self.meta_batch[0].T @ first / len(first)

    def implicit(self, base: Params, meta: Params, solve) -> dict[str, Tensor]:
        """`∂L_meta/∂λ − (∂g/∂λ)ᵀ solve(H, ∂L_meta/∂θ)` by hand, at any θ."""
        p, mixed = solve(self.hessian(base, meta), self.meta_gradient(base)), self.mixed(base, meta)
        return {name: self.direct * meta[name] - mixed[name].T @ p for name in meta}

    def true_hypergradient(self) -> dict[str, Tensor]:
        """dL_meta(θ*(λ), λ)/dλ in closed form, by the implicit function theorem at the exact solution."""
        return self.implicit(self.solve(self.lam), self.lam, torch.linalg.solve)

    def resolved_slope(self, direction: Params, step: float = 1e-4) -> float:
        """d/dt L_meta(θ*(λ + t·direction), λ + t·direction) by solving the base problem again, error O(step⁴)."""

        def value(t: float) -> float:
            lam = {name: self.lam[name] + t * direction[name] for name in self.lam}
            return self.meta_loss(self.solve(lam), lam, self.meta_batch).item()

        near, far = value(step) - value(-step), value(2 * step) - value(-2 * step)
        return (8 * near - far) / (12 * step)


def agreement(value: Params, truth: Params) -> tuple[float, float]:
    """Cosine of the angle between both, and ‖value‖/‖truth‖."""
    left, right = flat(value), flat(truth)
    return (left @ right / (left.norm() * right.norm())).item(), (left.norm() / right.norm()).item()
