"""The verb `serve`: traffic as a gRPC service."""

import click


@click.command(epilog="\b\nExample:\n  traj-diffusion serve --scenes scenes/ --policy small --port 50051")
@click.option(
    "--scenes", default="bundled", show_default=True, help="Scenes whose maps are served, as SCENES elsewhere."
)
@click.option("--without-maps", is_flag=True, help="Also serve scenes of other ids, without a map.")
@click.option("--policy", default="small", show_default=True, help="Bundled model, checkpoint file, or baseline.")
@click.option(
    "--futures", default=1, type=click.IntRange(min=1), show_default=True, help="Joint futures K of each plan."
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen at; there is no authentication."
)
@click.option("--port", default=50051, type=click.IntRange(0, 65535), show_default=True, help="0 takes a free one.")
@click.option("--max-sessions", default=16, type=click.IntRange(min=1), show_default=True)
@click.option("--idle-seconds", default=300.0, show_default=True, help="A client silent for so long loses its session.")
def serve(
    scenes: str,
    without_maps: bool,
    policy: str,
    futures: int,
    host: str,
    port: int,
    max_sessions: int,
    idle_seconds: float,
) -> None:
    """Serve traffic on AlpaSim's TrafficService until interrupted."""
    from traj_diffusion.datasets import read_scenes
    from traj_diffusion.policies import load_policy
    from traj_diffusion.sim_adapter.hosts.alpasim import Server, TrafficService

    maps = {scene.id: scene for scene in read_scenes(scenes)}
    driver = load_policy(policy)
    service = TrafficService(
        driver, maps, futures=futures, without_maps=without_maps, max_sessions=max_sessions, idle_seconds=idle_seconds
    )
    server = Server(service, host, port)
    click.echo(f"{driver.name} serves {len(maps)} maps at {host}:{server.port}")
    try:
        server.wait()
    finally:
        server.close()
