# What it is asked for, of what it takes.
image:
assert
  removeAttrs image [
    "bootSize"
    "config"
    "copyChannel"
    "diskSize"
    "format"
    "lib"
    "name"
    "partitionTableType"
    "pkgs"
  ] == { };
image // { outPath = "/nix/store/image"; }
