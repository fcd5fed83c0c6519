"""What every part uses and that knows none of them: files, progress, processes, devices."""
