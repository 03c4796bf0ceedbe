# Subnets as ranges of numbers.
{ lib }:
let
  inherit (lib)
    all
    foldl'
    length
    splitString
    toIntBase10
    ;

  power = exponent: foldl' (product: _: product * 2) 1 (lib.range 1 exponent);

  # `10.44.0.1`, or null where that is no address.
  address =
    text:
    let
      parts = splitString "." text;
      isByte = part: builtins.match "[0-9]{1,3}" part != null && toIntBase10 part < 256;
    in
    if length parts == 4 && all isByte parts then
      foldl' (sum: part: sum * 256 + toIntBase10 part) 0 parts
    else
      null;
in
{
  inherit address;

  # `10.44.0.0/24` as its first and last address, or null where that is no subnet.
  subnet =
    text:
    let
      parts = splitString "/" text;
      base = address (lib.head parts);
      bits = builtins.match "[0-9]|[12][0-9]|3[0-2]" (lib.last parts);
      size = power (32 - toIntBase10 (lib.last parts));
      first = base - lib.mod base size;
    in
    if length parts != 2 || base == null || bits == null then
      null
    else
      {
        inherit first;
        last = first + size - 1;
      };

  overlap = one: two: one != null && two != null && one.first <= two.last && two.first <= one.last;
}
