#!/bin/sh
# Replaces every replica by one of the image and settings as they are now, one after the other: a new one starts and is
# healthy, the proxy takes it in, an old one drains and goes. Nothing is lost, and there is one replica more meanwhile.
#   docker compose build && docker/update.sh [service|service-gpu]
set -eu
service=${1:-service}
longest=${UNET_UPDATE_WAIT_S:-300} # for a new replica to be healthy

replicas() { docker compose ps --all --quiet "$service"; }

# Wait for one container; 1 where it ends, or is not healthy in time.
healthy() {
  until=$(($(date +%s) + longest))
  while [ "$(date +%s)" -lt "$until" ]; do
    case $(docker inspect --format '{{.State.Status}} {{.State.Health.Status}}' "$1") in
      "running healthy") return 0 ;;
      "running starting" | "created "*) sleep 0.5 ;;
      *) return 1 ;;
    esac
  done
  return 1
}

count=$(replicas | grep -c . || true)
# one that was killed would be started again as it was, and count as new
removed=$(docker compose rm --force "$service" 2>&1) || { echo "$removed" >&2; exit 1; }
old=$(docker compose ps --quiet "$service")
if [ -z "$old" ]; then
  echo "no replica of $service runs; start it with: docker compose up --detach" >&2
  exit 1
fi
for container in $old; do
  before=$(replicas)
  docker compose up --detach --no-deps --no-recreate --scale "$service=$((count + 1))" "$service"
  # whether those that ran before are healthy does not matter: they go
  for started in $(replicas); do
    case $before in *"$started"*) continue ;; esac
    healthy "$started" && continue
    docker logs --tail 3 "$started" >&2
    for newer in $(replicas); do
      case $before in *"$newer"*) ;; *) docker rm --force "$newer" >/dev/null ;; esac
    done
    echo "a new replica of $service is not healthy and was removed; those that ran before go on" >&2
    exit 1
  done
  sleep 2 # the proxy asks the name server twice a second, and a new replica whether it is ready
  docker stop "$container" >/dev/null # waits for its drain, stop_grace_period at most
  docker rm "$container" >/dev/null
done
echo "$count of $count replicas of $service are new"
