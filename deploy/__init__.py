"""How hazardgate gets onto a box: systemd units, and a bundle that installs without a network."""
