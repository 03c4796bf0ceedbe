# `[ADDRESS:]HOST-PORT:GUEST-PORT[/tcp|/udp]`: where on the host it listens, or null where it is no
# forward. `host` is null for every address.
{ lib }:
text:
let
  read = builtins.match "(([0-9.]+):)?([0-9]+):[0-9]+(/(tcp|udp))?" text;
  at = builtins.elemAt read;
  host = at 1;
in
if read == null then
  null
else
  {
    host = if host == "0.0.0.0" then null else host;
    hostPort = lib.toIntBase10 (at 2);
    protocol = if at 4 == null then "tcp" else at 4;
  }
