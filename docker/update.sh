#!/bin/sh
# Replaces every replica by one of the image and settings as they are now, one after the other: a new one starts and is
# healthy, the proxy takes it in, an old one drains and goes. Nothing is lost, and there is one replica more meanwhile.
#   docker compose build && docker/update.sh [service|service-gpu]
set -eu
service=${1:-service}
old=$(docker compose ps --quiet "$service")
count=$(printf '%s\n' "$old" | grep -c . || true)
if [ "$count" -eq 0 ]; then
  echo "no replica of $service runs; start it with: docker compose up --detach" >&2
  exit 1
fi
for container in $old; do
  docker compose up --detach --no-deps --no-recreate --wait --scale "$service=$((count + 1))" "$service"
  sleep 2 # the proxy asks the name server twice a second, and a new replica whether it is ready
  docker stop "$container" >/dev/null # waits for its drain, stop_grace_period at most
  docker rm "$container" >/dev/null
done
echo "$count of $count replicas of $service are new"
