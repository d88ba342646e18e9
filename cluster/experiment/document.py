"""The text of an experiment file → plain values; a name given twice is a mistake and not a choice of the last."""

from pathlib import Path
from typing import Any

import yaml

from cluster.errors import ConfigError


def read_document(path: Path) -> Any:
    """Plain values of a YAML file.

    Raises:
        ConfigError: if the file cannot be read, is not YAML, or gives a name twice.
    """
    try:
        return _UniqueNames(path.read_text()).get_single_data()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"cannot read the experiment {path}: {reason}; `hdqnn experiment --help` has one") from error


class _UniqueNames(yaml.SafeLoader):
    """YAML forbids a name twice in a mapping; PyYAML would keep the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key_node.value!r} is there twice, expected once", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)
