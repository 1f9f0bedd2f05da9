"""The verb `export`: a model as ONNX files for other runtimes."""

from pathlib import Path

import click


@click.command(epilog="\b\nExample:\n  traj-diffusion export --out exported")
@click.argument("model", required=False)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder that is written.")
def export(model: str | None, out: Path) -> None:
    """Write MODEL as ONNX files: a bundled model, a checkpoint file, or the one that is taken by default.

    map.onnx runs once per map, scene.onnx once per tick, step.onnx at each denoising step; model.json says the rest.
    Other verbs take the folder as a policy. Needs the extra `onnx`.
    """
    from traj_diffusion.policies import load_model
    from traj_diffusion.policies.export import export_model

    policy = load_model(model) if model else load_model()
    export_model(policy.model, policy.name, out)
    sizes = {file.name: file.stat().st_size for file in sorted(out.glob("*.onnx"))}
    click.echo(
        f"{policy.name} -> {out}: " + ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in sizes.items())
    )
