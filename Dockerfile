# For GPU nodes: docker build -t jepa-pretrain . (not built by the tests)
#
# Plain Python and no CUDA image beneath it: torch's Linux wheels bring CUDA, cuDNN and NCCL along, so a CUDA image would
# hold all of it twice, in two versions. The node gives the driver, through the NVIDIA container toolkit.
FROM python:3.12-slim

# gcc: torch.compile builds its launchers when it runs. libibverbs: NCCL looks for it to speak InfiniBand.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libibverbs1 ibverbs-providers \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 jepa \
    && install --directory --owner=jepa --group=jepa /workspace
WORKDIR /workspace

# The dependencies alone first: 6 GB that stay cached until pyproject.toml changes.
COPY pyproject.toml /tmp/pyproject.toml
RUN python -c "import tomllib; print(*tomllib.load(open('/tmp/pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
      > /tmp/requirements.txt \
    && pip install --no-cache-dir torch torchvision -r /tmp/requirements.txt

COPY pyproject.toml README.md LICENSE /tmp/source/
COPY jepa_pretrain /tmp/source/jepa_pretrain
RUN pip install --no-cache-dir --no-deps /tmp/source && rm -rf /tmp/source
COPY --chown=jepa:jepa recipes recipes

# An image that is not NVIDIA's own has to ask for the devices itself.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1

# Mount /workspace/runs and the shards; both must be open to user 1000, or run with --user. No ENTRYPOINT: what follows
# the image's name runs as it stands, be it jepa-pretrain, torchrun or a shell, also beneath srun. The loader's workers
# hand pictures over in shared memory, so give it room, e.g. docker run --gpus all --shm-size 16g jepa-pretrain \
#   torchrun --nproc-per-node 8 --no-python -- jepa-pretrain fit --config recipes/ijepa_vith14_in1k.yaml --trainer.devices 8
USER jepa
CMD ["jepa-pretrain", "--help"]
