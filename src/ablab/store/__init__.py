"""What happened: plain files that are readable after rsync without any server, and safe against any kill."""
