"""Images from a UNet: solver (noise -> latents) -> pipeline (latents -> uint8 images) -> grids and PNG files."""
