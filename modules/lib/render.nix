# From options to the tables of the TOML.
{ lib }:
let
  inherit (lib)
    attrValues
    concatMapStrings
    filterAttrs
    mapAttrs'
    nameValuePair
    optionalAttrs
    sort
    stringToCharacters
    toLower
    ;

  # `vramMax` is `vram-max`.
  kebab =
    name: concatMapStrings (c: if toLower c == c then c else "-${toLower c}") (stringToCharacters name);

  # What is not said is left out.
  said = filterAttrs (_: value: value != null);
  table = entry: said (mapAttrs' (name: nameValuePair (kebab name)) entry);

  # An attribute set in the order of the list that it stands for; those of one order stay by their names.
  list =
    entries:
    map (entry: table (removeAttrs entry [ "order" ])) (
      sort (a: b: a.order < b.order) (attrValues entries)
    );

  machine =
    entry:
    let
      limits = said entry.limits;
      rest = removeAttrs entry [
        "disks"
        "labels"
        "limits"
        "nets"
      ];
    in
    table rest
    // optionalAttrs (limits != { }) { inherit limits; }
    // optionalAttrs (entry.labels != { }) { inherit (entry) labels; }
    // optionalAttrs (entry.disks != { }) { disk = list entry.disks; }
    // optionalAttrs (entry.nets != { }) { net = list entry.nets; };
in
{
  inherit machine table;
}
