# Memory as the TOML writes it, in bytes: a number is of GiB, a text may have a unit.
{ lib }:
let
  factors = {
    b = 1;
    k = 1024;
    m = 1024 * 1024;
    g = 1024 * 1024 * 1024;
    t = 1024 * 1024 * 1024 * 1024;
  };
  parts = builtins.match "0*([0-9]+([.][0-9]+)?) *([bBkKmMgGtT]?)([iI]?[bB])?";
in
rec {
  # Null where that is no size.
  bytes =
    size:
    let
      read = parts (toString size);
      unit = lib.toLower (builtins.elemAt read 2);
    in
    if builtins.isInt size || builtins.isFloat size then
      builtins.floor (size * factors.g)
    else if read == null then
      null
    else
      builtins.floor (
        builtins.fromJSON (builtins.head read) * factors.${if unit == "" then "g" else unit}
      );

  # To be read: `12.5 GiB` would be more than anybody asks.
  show =
    size:
    if lib.mod size factors.g == 0 then
      "${toString (size / factors.g)} GiB"
    else
      "${toString (size / factors.m)} MiB";
}
