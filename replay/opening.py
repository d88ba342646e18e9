"""Opens a run's replay, whether ``REDIS_URL`` names one server or several."""

from replay.rate_limiter import RateLimiter, SampleToInsertRatio
from replay.redis_replay import RedisReplay
from replay.redis_writer import RedisWriter
from replay.server_urls import capacity_parts, check_number, server_urls
from replay.shard_law import WithinAllowance
from replay.sharded_replay import ShardedReplay
from replay.types import TransitionSpec


def open_replay(
    url: str,
    run_id: str,
    spec: TransitionSpec,
    limiter: SampleToInsertRatio,
    capacity: int,
    *,
    capacity_bytes: int = 0,
    is_prioritised: bool = False,
    dataset_id: str | None = None,
) -> RedisReplay | ShardedReplay:
    """The learner's side for one server, or for several as in ``REDIS_URL``; the rest as of their ``connect``."""
    urls = server_urls(url)
    check_number(dataset_id, len(urls))
    if len(urls) == 1:
        return RedisReplay.connect(
            url,
            run_id,
            spec,
            limiter,
            capacity,
            capacity_bytes=capacity_bytes,
            is_prioritised=is_prioritised,
            dataset_id=dataset_id,
        )
    return ShardedReplay.connect(
        urls,
        run_id,
        spec,
        limiter,
        capacity,
        capacity_bytes=capacity_bytes,
        is_prioritised=is_prioritised,
        dataset_id=dataset_id,
    )


def open_writer(
    url: str,
    actor_id: int,
    run_id: str,
    spec: TransitionSpec,
    limiter: RateLimiter,
    capacity: int,
    *,
    capacity_bytes: int = 0,
) -> tuple[RedisWriter, RateLimiter]:
    """The actor's connection to its server and the law that holds there; the rest as of ``RedisWriter.connect``."""
    urls = server_urls(url)
    if len(urls) > 1:
        url, limiter = urls[actor_id % len(urls)], WithinAllowance()
        capacity, capacity_bytes = capacity_parts(len(urls), capacity, capacity_bytes)
    return RedisWriter.connect(url, run_id, spec, limiter, capacity, capacity_bytes=capacity_bytes), limiter
