"""Diffusion as pure maths on tensors: schedules, parameterisations, losses, samplers. No driving word in it."""
