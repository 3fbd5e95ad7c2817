#!/bin/sh
# Replaces every replica by one of the image and settings as they are now, one after the other: a new one starts and is
# healthy, the proxy takes it in, an old one drains and goes. Nothing is lost, and there is one replica more meanwhile.
#   docker compose build && docker/update.sh [service|service-gpu]
set -eu
service=${1:-service}
count=$(docker compose ps --all --quiet "$service" | grep -c . || true)
# one that was killed would be started again as it was, and count as new
docker compose rm --force "$service" >/dev/null 2>&1
old=$(docker compose ps --quiet "$service")
if [ -z "$old" ]; then
  echo "no replica of $service runs; start it with: docker compose up --detach" >&2
  exit 1
fi
for container in $old; do
  before=$(docker compose ps --all --quiet "$service")
  if ! docker compose up --detach --no-deps --no-recreate --wait --scale "$service=$((count + 1))" "$service"; then
    for started in $(docker compose ps --all --quiet "$service"); do
      case $before in *"$started"*) ;; *) docker rm --force "$started" >/dev/null ;; esac
    done
    echo "a new replica of $service is not healthy and was removed; those that ran before go on" >&2
    exit 1
  fi
  sleep 2 # the proxy asks the name server twice a second, and a new replica whether it is ready
  docker stop "$container" >/dev/null # waits for its drain, stop_grace_period at most
  docker rm "$container" >/dev/null
done
echo "$count of $count replicas of $service are new"
