"""The verb `export`: a model as ONNX files for other runtimes."""

from pathlib import Path

import click


@click.command(epilog="\b\nExample:\n  traj-diffusion export tiny --out tiny-onnx")
@click.argument("model", default="tiny")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder that is written.")
def export(model: str, out: Path) -> None:
    """Write MODEL, a bundled model or a checkpoint file, as ONNX files.

    map.onnx runs once per map, scene.onnx once per tick, step.onnx at each denoising step; model.json says the rest.
    Other verbs take the folder as a policy. Needs the extra `onnx`.
    """
    from traj_diffusion.model import find_checkpoint, load_checkpoint
    from traj_diffusion.policies.export import export_model

    path = find_checkpoint(model)
    network, _ = load_checkpoint(path)
    export_model(network, path.stem, out)
    sizes = {file.name: file.stat().st_size for file in sorted(out.glob("*.onnx"))}
    click.echo(f"{path.stem} -> {out}: " + ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in sizes.items()))
