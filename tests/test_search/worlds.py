"""Searches with a known truth."""

import numpy as np

from search.nearest import Candidates
from search.searches import Searches
from search.sides import Side


def world(rng, people=200, gallery=60, each=4, noise=0.6, quality=True, mean=4):
    """Own scores have a mean (4), others 0, and both a variance of 1 + noise * u.

    The first `gallery` people are enrolled; all T scores of a probe are candidates.
    """
    person = np.repeat(np.arange(people), each)
    uncertainty = rng.random(len(person)).astype(np.float32)
    own = np.where(person < gallery, person, -1)
    spread = np.sqrt(1 + noise * uncertainty) if quality else np.ones(len(person))
    scores = rng.standard_normal((len(person), gallery)) * spread[:, None]
    scores[np.flatnonzero(own >= 0), own[own >= 0]] += mean
    rows = np.argsort(-scores, axis=1)[:, :20]
    best = np.take_along_axis(scores, rows, 1).astype(np.float32)
    names = [f"p{row}" for row in range(gallery)]
    templates = np.zeros(gallery, np.float32)
    sides = (uncertainty, templates, names)
    probes = [f"photo {row}" for row in range(len(person))]
    return Searches("world", Candidates(best, rows), own, person, *sides, probes)


def side(name, mu, person, uncertainty=None):
    """A side of embeddings with (N,) names of people."""
    mu = np.asarray(mu, np.float32)
    sigma = np.ones(len(mu)) if uncertainty is None else uncertainty
    images = np.array([f"{name}/{row}" for row in range(len(mu))])
    people = np.array([str(one) for one in person], np.str_)
    return Side(name, mu, np.asarray(sigma, np.float32)[:, None], people, images)


def faces(rng, people=12, each=3, size=6, noise=0.5):
    """(mu, person) of faces around a centre for each person."""
    person = np.repeat(np.arange(people), each)
    centre = rng.standard_normal((people, size))
    return (centre[person] + noise * rng.standard_normal((len(person), size))), person
