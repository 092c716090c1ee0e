# An image that upscales, serves the demo and trains, as an ordinary user; see docs/how_to/containers.md.
# For CPUs:  docker build -t esrgan .
# For GPUs:  docker build -t esrgan:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS wheel
COPY . /src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist /src

FROM python:${PYTHON}-slim
# Both from one index: a torchvision that was built for CUDA does not work with PyTorch for CPUs.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision
ARG EXTRAS=demo,heic,hub,metrics,train,video
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install --no-cache-dir "$(echo /dist/esrgan-*.whl)[$EXTRAS]"
# Caches are written to the home folder, also by the users that `docker run --user` selects.
RUN useradd --create-home --uid 1000 esrgan && chmod 777 /home/esrgan && install -d -o esrgan /work
ENV HOME=/home/esrgan
USER esrgan
WORKDIR /work
EXPOSE 7860
ENTRYPOINT ["esrgan"]
CMD ["--help"]
