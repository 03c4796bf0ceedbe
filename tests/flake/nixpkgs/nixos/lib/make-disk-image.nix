# What it is asked for.
image: image // { outPath = "/nix/store/image"; }
